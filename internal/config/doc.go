// Package config turns the configuration file and the environment into one
// validated Config.
//
// The file is read strictly. It is YAML without its trapdoors: no anchors,
// aliases, merge keys or tags, one document, every key known and given once.
// ${NAME} in a value takes an environment variable; what comes out of it is
// text and is never read as YAML. Every fault is found in one go and
// says file, line, column and key; a value that came out of the environment
// stands in no fault.
//
// What is wrong with the files and variables of one tenant's credential is no
// fault but an Impairment: the other tenants go on.
//
// A Config is complete: defaults are filled in, durations are time.Duration,
// sizes bytes, addresses prefixes, names are checked against each other.
// Secrets are references, read by whoever needs them with Secret.Resolve.
// Nothing here listens, dials or keeps a goroutine; the only files touched are
// the configuration, the tenants' own and those they name.
//
// The command line calls Load and hands the pieces to the packages that do the
// work. Those packages do not know this one.
package config
