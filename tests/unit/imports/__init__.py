"""What reads other tools' words."""
