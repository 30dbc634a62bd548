#!/bin/bash
test -f main.fmf
