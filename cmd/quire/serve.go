package main

import "errors"

type serveVerb struct {
	configFlags
}

func (v *serveVerb) Run(p *process) error { return errors.New("unwritten") }
