"""Take questions and orders over the control socket, and answer them."""
