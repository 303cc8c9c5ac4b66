// Package plugins is what amiconfig can do to a machine: one file a plugin, one
// visible table of them ([Table]), in the order in which they run.
//
// A plugin reads the options of one section and acts only through a
// [guest.Root], so the same code configures the running machine, a directory
// tree, or nothing at all but a record of what it would have done. Its Keys say
// what each option means; reference, linter and completion read them.
//
// Rules every plugin keeps: all options are looked at before the first thing is
// done; an option that is wrong is reported and left out, the others still count;
// steps do not depend on one another unless they must, and their errors are
// joined; doing it again changes nothing. No option's value is put into an error
// text when its key is marked secret, and no secret becomes a program argument.
//
// Differs: the original's plugins are straight functions in which the first
// exception leaves the rest undone (amiconfig: rpath/amiconfig/plugins,
// cernvm/amiconfig/plugins, hepix). Where an original file format or default is
// kept, the plugin's file names it.
//
// The package knows neither where the context came from nor which plugins are
// enabled; that is package amiconfig.
package plugins
