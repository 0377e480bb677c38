package daemon

// Apart is what a large manifest is read by.
var Apart = Options.apart
