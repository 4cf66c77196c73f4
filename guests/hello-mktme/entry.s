# Entry point, exception stubs and the memory functions that the compiler calls.

.equ CR0_MP, 1 << 1
.equ CR0_EM, 1 << 2
.equ CR0_TS, 1 << 3
.equ CR4_OSFXSR, 1 << 9
.equ CR4_OSXMMEXCPT, 1 << 10
.equ STACK_BYTES, 64 * 1024

# Entered in 64-bit mode with RSI = the zero page (Linux boot protocol, "64-bit boot protocol"); RSP is undefined.
.section .text.entry, "ax"
.global entry
entry:
    cli
    cld
    lea rsp, [rip + stack_top]
    xor ebp, ebp
    # Compiled code uses SSE2, and so does `core` (SDM Vol. 3A, 14.1: enabling SSE).
    mov rax, cr0
    and eax, ~(CR0_EM | CR0_TS)
    or eax, CR0_MP
    mov cr0, rax
    mov rax, cr4
    or eax, CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, rax
    mov rdi, rsi
    call start
    ud2

# One stub per architectural vector, 16 bytes apart, so that the IDT can be filled by arithmetic. Each leaves the same
# frame: vector, error code (0 where the CPU pushes none), RIP, CS, RFLAGS, RSP, SS (SDM Vol. 3A, 7.14.2).
.section .text
.balign 16
.global exception_stubs
exception_stubs:
.set vector, 0
.rept 32
    .balign 16
    # 8 #DF, 10 #TS, 11 #NP, 12 #SS, 13 #GP, 14 #PF, 17 #AC, 21 #CP, 29 #VC, 30 #SX come with an error code.
    .if !((0x60227d00 >> vector) & 1)
    push 0
    .endif
    .byte 0x6a, vector                  # push imm8
    jmp exception_common
    .set vector, vector + 1
.endr

exception_common:
    cld
    mov rdi, rsp
    and rsp, -16
    call exception
    ud2

# void *memcpy(void *to, const void *from, size_t bytes)
.global memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

# void *memmove(void *to, const void *from, size_t bytes)
.global memmove
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 2f
    rep movsb
    ret
2:  # The target begins inside the source: from the end downwards.
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

# void *memset(void *to, int byte, size_t bytes)
.global memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

# int memcmp(const void *a, const void *b, size_t bytes), and bcmp, of which it is a stricter form
.global memcmp
.global bcmp
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    test rcx, rcx
    jz 2f
    repe cmpsb
    je 2f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
2:  ret

.section .bss
.balign 16
    .skip STACK_BYTES
stack_top:
