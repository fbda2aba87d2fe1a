"""ELIP: visual tokens that a text does not ask for are left out, in ALBEF, BLIP and CLIP-like models."""
