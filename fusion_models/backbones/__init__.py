"""Encoders of one frame or clip: raw pixels or a spectrogram in, a feature vector out."""
