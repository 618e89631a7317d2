"""What a package carries beside the program."""
