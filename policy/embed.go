// Package policy holds Varvel's default policy: Rego modules, their tests, and
// the JSON schema of their input. Package internal/policy compiles it.
package policy

import "embed"

// Modules holds the default policy's Rego files and their tests (_test.rego).
//
//go:embed *.rego
var Modules embed.FS

// InputSchema is the JSON schema (draft 7) of the policy's input.
//
//go:embed input.schema.json
var InputSchema []byte
