"""What operators do and see, whoever asks for them: the command line today. Nothing here changes what was decided."""
