package endpoint

// WhyText is the plain answer to "why dest" for tests.
func WhyText(h *History, dest string) string { return collect(h.Recent(7), "run_1", dest).text() }
