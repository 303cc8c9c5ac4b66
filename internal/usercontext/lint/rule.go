package lint

import "github.com/micavm/mica/internal/usercontext"

// Rule is one thing that is looked for.
type Rule struct {
	ID       string
	Severity usercontext.Severity // the usual one; a finding may be milder
	Text     string               // one line, for listings
	Why      string               // what happens otherwise
}

const (
	note    = usercontext.Note
	warning = usercontext.Warning
	failure = usercontext.Error
)

// Rules returns every rule, by identifier.
func Rules() []Rule {
	return []Rule{
		{"C001", warning, "password or secret in clear text", "Whoever sees the context can read it: the platform, its logs, every process in the machine."},
		{"C002", failure, "password hash that an original CernVM does not know", "Only hashes that start with $6$ are taken as such there; any other text becomes the password itself. Mica knows all crypt schemes."},
		{"C003", failure, "entry of users that is not user:group:password", "One malformed entry stops the plugin before it creates any user."},
		{"C004", failure, "entry of environment that is not NAME=value", "A value with a second \"=\" stops the plugin before it creates any user; a name that starts with another one's replaces it."},
		{"C005", warning, "repository name that cannot be mounted as written", "A name without a dot gets .cern.ch; the same repository twice, or a name with other characters, is a slip."},
		{"C006", failure, "eos-server without a certificate, or with a scheme", "The plugin stops before the desktop starts; the scheme is added by the plugin."},
		{"C007", warning, "proxy that is not a proxy list", "It is written to a file that a shell reads, so \";\" and \"|\" cut it unless it is in double quotes."},
		{"C008", warning, "contextualization_command or contextualization_key", "The command is one entry user:command, and it runs at every boot; the key may carry a secret."},
		{"C009", warning, "desktop icon that is not Name,base64", "The icon's file is not made, or is not a desktop entry."},
		{"C010", warning, "proxy for repositories, but not for the boot loader", "From the second boot on, an original CernVM falls back to its default proxy. Set cvmfs_http_proxy in the boot loader's block as well."},
		{"I001", failure, "section name that is almost a known one", "Names of sections are compared exactly: amiconfig fails, or takes the section for somebody else's."},
		{"I002", warning, "section nobody reads, or plugin without its section", "The options have no effect until the plugin is enabled."},
		{"I003", failure, "plugin that does not exist", "Unknown names are ignored without a message. Between names stand blanks: a list with commas is one unknown name."},
		{"I004", failure, "option that the plugin does not know", "Unknown options are ignored without a message."},
		{"I005", failure, "line without effect", "There are no continuation lines, and a line without a separator is dropped without a message."},
		{"I006", warning, "the same option or section twice", "The last value wins; lists do not add up."},
		{"I007", warning, "value that is not what it looks like", "A \";\" behind a blank cuts the value; a \"#\" in a value does not."},
		{"I008", failure, "value of the wrong kind", "The plugin fails, or the service that gets the value does."},
		{"I009", warning, "option without effect", "It is accepted, and nothing comes of it."},
		{"M001", failure, "MIME structure is broken", "Parts are lost, or the whole is taken for plain text."},
		{"M002", failure, "part for amiconfig or the boot loader is encoded", "The original agents look at the text as it is, and do not decode parts. Mica does."},
		{"M003", failure, "text behind the amiconfig part belongs to its last section", "Every line key: value that follows, also of another part, becomes an option. Put the amiconfig part last."},
		{"M004", failure, "content that no agent takes, or takes for something else", "The part is skipped, or read by the wrong agent."},
		{"M005", warning, "MIME detail that some reader trips over", "Mailbox lines and paths in file names are left over from mail programs."},
		{"P001", failure, "medium that its readers pass over or take for another", "Each reader knows a medium by its label or its files, and a context that has been applied by the instance id."},
		{"S001", failure, "script does not end with exit", "amiconfig hands the shell the whole rest of the file; without exit at the left margin it runs the sections as commands."},
		{"S002", failure, "#! line that amiconfig does not recognise", "The script never runs on an original CernVM: the line must end in sh, sh.before or sh.after."},
		{"S003", warning, "script that amiconfig runs twice", "A second #! line inside a here-document counts as well. Mica runs the script once."},
		{"S004", failure, "shell syntax error", "The shell stops there; what follows in the script does not run."},
		{"S005", warning, "construct that only bash knows", "The script asks for sh, which is bash on CernVM and on Mica where it is installed, and another shell elsewhere."},
		{"S006", warning, "script that cloud-init runs, too", "cloud-init takes every text that starts with #! for a script of its own."},
		{"S007", warning, "text in the script that amiconfig changes or reads", "It drops blank lines before it runs the script, and takes [section] lines of here-documents for sections of the context."},
		{"S008", warning, "command that weakens the machine", "What is fetched or opened this way can be replaced by others, and the script runs as root."},
		{"U001", failure, "key that the boot loader does not know", "Unknown keys are ignored without a message."},
		{"U002", failure, "line of the boot loader's block that is not key=value", "The line is handed to a shell as it is: no blanks around \"=\", no comments."},
		{"U003", failure, "value of the boot loader's block that a shell takes apart", "Put the value in double quotes. Mica does not need them."},
		{"U004", failure, "markers of the boot loader's block", "Only the first block counts, between [ucernvm-begin] and [ucernvm-end], each alone on its line."},
		{"U005", warning, "on or off where it does not belong, or missing where it does", "The original turns such words into 1 and 0 for every key."},
		{"U006", failure, "archive in cernvm_inject", "It is unpacked at the root of the operating system, so it must be a tar.gz with relative names."},
		{"U007", warning, "boot loader's block in an encoded part", "The original boot loader does not decode parts. Mica does."},
		{"U008", warning, "placeholder of the cluster's head", "It is replaced in the boot loader's copy of the context only, not in the one amiconfig reads."},
		{"X001", warning, "private key or token in clear text", "Whoever sees the context can use it."},
		{"Y001", failure, "cloud-config that cloud-init cannot read", "The first line is exactly #cloud-config; the rest is one YAML map, indented with blanks."},
		{"Y002", warning, "cloud-config key that no module reads", "cloud-init ignores it without a message."},
		{"Z001", warning, "context too large for some platforms", "EC2 takes 16384 bytes, OpenStack and Azure 65535, CloudStack 32768 as base64, Google 262144."},
		{"Z002", failure, "bytes that are not plain UTF-8 text with Unix line ends", "Some agents lose the first line, the last one, or all of them."},
		{"Z003", warning, "compressed context", "amiconfig on an original CernVM cannot decompress it. Mica can."},
	}
}
