"""Look-alikes of the shipped platforms: repositories in the form of the real ones, at their addresses, on this machine.

`trust.py` makes a key for each one that the shipped definitions pin, `packages.py` signs packages as each vendor does,
`forms.py` says what is particular about each vendor, `site.py` makes repositories, metalinks and mirrorlists of the
shipped definitions' own addresses, `server.py` serves them over HTTPS behind a proxy, `platforms.py` does all of it.
"""
