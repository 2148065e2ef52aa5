// Package arch holds no code, only tests: they read the source tree and fail
// when an import, a file or a function breaks a rule of the house. The rules are
// data, each with its reason; to change one, change its line and say why.
package arch
