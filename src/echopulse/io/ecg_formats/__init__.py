"""One reader per ECG file format; `echopulse.io.ecg.read_ecg` picks the right one."""
