package launch

// What is tested by itself.
var (
	ParseSettings = func(text string) map[string]string { return parseSettings([]byte(text)) }
	ParseRecord   = func(text string) map[string]string { return parseRecord([]byte(text)) }
	FormatRecord  = func(values map[string]string) string { return string(formatRecord(values)) }
)

// On makes p behave as on another system.
func (p *Program) On(system string) { p.system = system }

// Folders returns the base folder and the runtime folder's name for a home.
func (p *Program) Folders(home string) (string, string) { return p.base(home), p.runtimeName() }
