"""The page that `trainer.report` writes: what is said of a sealed model, drawn and laid out."""
