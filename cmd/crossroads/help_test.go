package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every verb teaches: it says what it does, shows an example that parses, and has no
// flag without a word of explanation.
func TestHelpTeaches(t *testing.T) {
	walk(newRoot(), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short help %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && c.Example == "" && c.Name() != "version" {
			t.Errorf("%s shows no example", c.CommandPath())
		}
		if strings.Contains(c.Example, "\t") {
			t.Errorf("%s: a tab in the example", c.CommandPath())
		}
	})
}

// Examples name verbs and flags that there are.
func TestExamplesParse(t *testing.T) {
	walk(newRoot(), func(c *cobra.Command) {
		text := strings.ReplaceAll(c.Example, "\\\n", " ")
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "crossroads" {
				continue
			}
			if i := strings.Index(line, " > "); i > 0 {
				words = strings.Fields(line[:i])
			}
			verb, rest, err := newRoot().Find(words[1:])
			if err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
				continue
			}
			if err := verb.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
			if err := verb.ValidateRequiredFlags(); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
			if err := verb.ValidateFlagGroups(); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
		}
	})
}

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}
