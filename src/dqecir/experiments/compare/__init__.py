"""Compare methods with the same encoder, the same stored image tokens, equal budgets and several seeds.

A contestant is a method with its training recipes and options.
"""
