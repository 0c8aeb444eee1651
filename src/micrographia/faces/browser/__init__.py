"""The browser: feature bundles as pages in which latents are found, read, tested and steered.

`app.create_app` serves them on the loopback interface (extra `web`); `export.export` writes the same pages as plain
files, for which nothing has to be installed.
"""
