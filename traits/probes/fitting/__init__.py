"""From labelled traces to a probe: rows and labels, parts, linear methods, and the choice."""
