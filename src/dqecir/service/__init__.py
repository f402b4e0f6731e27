"""The service: a model and its index behind HTTP, and the page on which people search.

A request is read and its picture decoded beside the event loop; one thread runs the model and the search,
for all that wait at that moment together.
"""
