"""A keystore in software: algorithms, the life of keys and all operations, over any store of keys.

Two drivers are made of it, which never import one another: `local` keeps the keys in a sealed file, `mock` in
memory. The algorithms stand in `algorithms`, the states in `states`; `keystore` is all operations together.
"""
