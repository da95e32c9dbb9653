"""Model organisms and their controls: trained, measured, described on a card."""
