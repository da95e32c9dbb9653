"""Files in the forms of public sources, small and in words of their own."""
