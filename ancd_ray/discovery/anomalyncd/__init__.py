"""Learning the classes: where views come from, what learns, and the loop. Plain torch; the stage brings Ray to it."""
