"""Images with their labels: importing, checking, splitting, versioning, generating."""
