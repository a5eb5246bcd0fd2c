"""Code that runs in other tools: copied into exports as it is, never imported here."""
