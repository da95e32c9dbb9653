"""Text to labelled token ids: prompt files, chat templates, roles, padded batches."""
