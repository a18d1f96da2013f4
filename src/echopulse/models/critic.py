"""Token critic: tells real codes from drawn ones, so that sampling hides the right ones again (Lezama 2022)."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from echopulse.models.video_transformer import Conditions, GeneratorConfig, WindowTransformer


class TokenCritic(WindowTransformer):
    """A transformer like the generator's, shallower, with one score a code.

    It has no ECG encoder: it reads the features that the generator's encoder made.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.register_parameter("hidden", None)  # nothing is hidden from the critic
        self.head = nn.Linear(config.width, 1)

    def forward(self, codes: Int[Tensor, "b t gh gw"], conditions: Conditions) -> Float[Tensor, "b t gh gw"]:
        """Log-odds that each code is real.

        Args:
            codes: a whole window, real and drawn codes together.
            conditions: as for the generator, the ECG encoded.
        """
        return self.head(self.features(codes, None, conditions)).squeeze(-1)
