package main

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

type groupExportVerb struct {
	clientFlags
	groupFlags
}

func (v *groupExportVerb) Run(p *process) error {
	return v.chosen(p, &v.clientFlags, func(c *groupClient, names []string) error {
		descriptions, err := c.describe(names)
		if err != nil {
			return err
		}
		commits, err := c.committed(names)
		if err != nil {
			return err
		}
		var topics []string
		for _, name := range names {
			for _, o := range commits[name].offsets {
				topics = append(topics, o.Topic)
			}
		}
		slices.Sort(topics)
		l, err := c.logs(slices.Compact(topics), -1)
		if err != nil {
			return err
		}
		file := groupsFile{Format: groupsFormat, Version: groupsFormatVersion, Groups: []exportedGroup{}}
		var failed []error
		for _, name := range names {
			d, commit := descriptions[name], commits[name]
			switch {
			case d.err != nil || commit.err != nil:
				failed = append(failed, errors.Join(d.err, commit.err))
			case d.State == deadState:
				failed = append(failed, fmt.Errorf("group %s does not exist", cell(name)))
			case !utf8.ValidString(name):
				failed = append(failed, fmt.Errorf("group %s: its name is not UTF-8, which JSON cannot hold", cell(name)))
			case len(commit.offsets) == 0:
				fmt.Fprintf(p.stderr, "skipped: group %s: nothing is committed\n", cell(name))
			default:
				if d.active() {
					fmt.Fprintf(p.stderr, "note: group %s has active members: what they commit from now on is not in the export\n", cell(name))
				}
				file.Groups = append(file.Groups, exportGroup(&d.groupDescription, commit.offsets, l.topics))
			}
		}
		if err := printJSON(p.stdout, &file); err != nil {
			return err
		}
		return summarize(p, failed, "groups could not be exported")
	})
}
