// Package params reads what a user wants of a new machine: every creation
// parameter under one name, from four places.
//
//	--execution-cap 50             the command line
//	MICA_CREATE_EXECUTION_CAP=50   the environment
//	execution-cap: 50              a file in YAML
//	                               the default
//
// The first place that says something wins, for each parameter by itself. A
// parameter that takes several values (forward, share, add-disk, label, option) is taken
// whole from one place; in the environment its values are separated by commas.
// Paths in a file are relative to the file's folder, all others to the current
// one.
//
// A file is read strictly: an unknown or repeated key, an alias and a second
// document are errors that name file and line. Values are the text of the YAML
// scalar, so that 8080:80 and 1e3 mean what they look like. A list may be
// written as one value, a sequence, or, for option, as a mapping.
//
// The package does not look at the computer, shared folders and disks excepted,
// which are made absolute and must exist.
package params
