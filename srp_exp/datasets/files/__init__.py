"""Pictures read from files when they are needed: decoding, transforms, and the workers that make batches of them."""
