"""Arms answered by a serving engine's file or a server, held against the loaded model."""
