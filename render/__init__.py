"""MJML and Jinja2 become HTML, text and MIME bytes. No Ray; usable alone."""
