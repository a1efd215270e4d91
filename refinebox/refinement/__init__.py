"""Features and boxes of a frozen detector come in; better boxes go out, and an upgraded file of both."""
