"""Who was dropped, and on request who was accepted: named, remembered, and written down."""
