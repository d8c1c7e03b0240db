"""What becomes of pictures as they age: kept losslessly, compressed, deleted.  A process of its own beside the station."""
