"""The nouns: frozen, slotted values without I/O. The rooms above give them verbs."""
