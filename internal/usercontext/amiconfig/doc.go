// Package amiconfig makes a running operating system be what its context says:
// the part of Mica that runs as a service inside the machine once the operating
// system is up.
//
// [Apply] runs the script of the context if it asks for the phase "before", then
// the enabled plugins in the order of their table, then the script if it asks for
// the phase "after"; all that once per machine. Where the context names another one
// of CernVM Online, that is fetched and applied next. At every boot it does what has
// to be done each time: swap and mounts in the plugin's turn, services last.
// Everything that happens to the system happens through one [guest.Root].
//
// [Main] is the command: `mica-guest apply`, and the programs of [Names] under their
// names. It reads what the boot stages left on the data disk,
// /mnt/.rw/context, and leaves a report in /mnt/.rw/ulogs/apply.json, a log in
// /var/log/mica, and events (package stage) on the machine's consoles.
//
// [Simulate] applies a context to an empty system that runs nothing, and shows
// what came of it; it is what `mica context simulate` prints.
//
// Once per machine means once per instance id. /var/lib/amiconfig/user.done, which
// scripts of contexts look at, is the marker, as in the original; a different
// instance id than the one remembered in /var/lib/mica/applied.json starts over.
// A context that changed under the same instance id is reported, not applied.
//
// Compat: amiconfig: rpath/amiconfig/ami.py, hepix/commands/amiconfig.sh.
//
// Differs: the order of plugins is fixed; plugin names may be separated by commas
// too, and unknown ones are reported; a section whose name differs from a
// plugin's only in case is found, and reported; a script runs once whatever is in
// its here-documents; the exit code of a script is its own; the log has it.
//
// Hazards: contexts hold passwords. Logs and reports are readable by root only,
// and neither they nor events hold option values, script text or script output,
// save the script logs themselves.
package amiconfig
