"""Any labelled array as coloured tokens: in a notebook, or as one HTML file."""
