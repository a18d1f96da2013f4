"""From conditions to codes to pictures: schedules, guidance, the decoding loop, windows without end."""
