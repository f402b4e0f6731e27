"""The service: a model and its index behind HTTP, and the page on which people search.

Requests are read and pictures decoded outside the event loop; one thread runs the model and the search for
all waiting requests together.
"""
