package lint

import (
	"net/url"
	"path/filepath"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/version"
)

// Result is what was found in one file.
type Result struct {
	File     string                `json:"file"`
	Bytes    int                   `json:"bytes"`
	Findings []usercontext.Problem `json:"findings"`
}

// The part of SARIF 2.1.0 that code hosts and editors read.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID     string      `json:"id"`
		Short  sarifText   `json:"shortDescription"`
		Full   sarifText   `json:"fullDescription"`
		Config sarifConfig `json:"defaultConfiguration"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		Rule      string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		Line   int `json:"startLine"`
		Column int `json:"startColumn,omitempty"`
	}
)

// SARIF returns results as a document in that format, to be encoded as JSON.
func SARIF(results []Result) any {
	run := sarifRun{
		Tool:    sarifTool{sarifDriver{Name: "mica context check", Version: version.Number}},
		Results: []sarifResult{},
	}
	for _, r := range Rules() {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{r.ID, sarifText{r.Text}, sarifText{r.Why}, sarifConfig{r.Severity.String()}})
	}
	for _, r := range results {
		uri := (&url.URL{Path: filepath.ToSlash(r.File)}).String()
		for _, f := range r.Findings {
			text := f.Text
			if f.Remedy != "" {
				text += " (" + f.Remedy + ")"
			}
			where := sarifPhysical{Artifact: sarifArtifact{uri}}
			if f.Line > 0 {
				where.Region = &sarifRegion{f.Line, f.Column}
			}
			run.Results = append(run.Results, sarifResult{f.Rule, f.Severity.String(), sarifText{text}, []sarifLocation{{where}}})
		}
	}
	return sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}}
}
