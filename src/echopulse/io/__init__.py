"""Files in and out: ECG, video, ultrasound DICOM, data sets. Import the module you need."""
