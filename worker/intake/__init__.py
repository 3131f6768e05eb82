"""From a signed message to rows: is it genuine, is it well formed, what does it change?"""
