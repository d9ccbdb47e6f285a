"""Part of Fireside."""
