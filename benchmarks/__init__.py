"""How fast the store is, beside the bare driver and the SDK's own stores."""
