"""Every use case of the control plane, one module per area of the API."""
