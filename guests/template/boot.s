# Headers of three boot protocols, the way from 32-bit protected mode to 64-bit mode, and what the compiler calls.

.equ MULTIBOOT1_MAGIC, 0x1badb002
.equ MULTIBOOT1_FLAGS, 0x00010003       # modules page-aligned, memory map, address fields valid
.equ MULTIBOOT2_MAGIC, 0xe85250d6
.equ MULTIBOOT2_I386, 0
.equ XEN_ELFNOTE_PHYS32_ENTRY, 18
.equ HVM_START_MAGIC, 0x336ec578

.equ CR0_PE, 1 << 0
.equ CR0_MP, 1 << 1
.equ CR0_NE, 1 << 5
.equ CR0_WP, 1 << 16
.equ CR0_PG, 1 << 31
.equ CR4_PAE, 1 << 5
.equ CR4_OSFXSR, 1 << 9
.equ CR4_OSXMMEXCPT, 1 << 10
.equ IA32_EFER, 0xc0000080
.equ EFER_LME, 1 << 8

.equ PAGE_P_RW, 0x003
.equ PAGE_P_RW_PS, 0x083
.equ IDENTITY_GIB, 4

.equ CODE_SELECTOR, 0x08
.equ DATA_SELECTOR, 0x10
.equ STACK_BYTES, 64 * 1024

# --- Headers. Multiboot 1 is looked for in the file's first 8 KiB, Multiboot 2 in the first 32 KiB.
.section .headers, "a"
.balign 8
multiboot2_header:
    .long MULTIBOOT2_MAGIC, MULTIBOOT2_I386, multiboot2_end - multiboot2_header
    .long 0x100000000 - (MULTIBOOT2_MAGIC + MULTIBOOT2_I386 + (multiboot2_end - multiboot2_header))
    .short 0, 0                         # end tag: without an address tag the loader reads the ELF headers
    .long 8
multiboot2_end:

.balign 4
multiboot1_header:
    .long MULTIBOOT1_MAGIC, MULTIBOOT1_FLAGS, 0x100000000 - (MULTIBOOT1_MAGIC + MULTIBOOT1_FLAGS)
    # Address fields, because many loaders take no ELF64 file. They describe what the ELF headers describe (link.ld).
    .long multiboot1_header, image_start, image_data_end, image_end, start32

# PVH: an ELF note.
.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start_pvh

# --- Entry, 32-bit protected mode, paging off. Multiboot: EAX = magic, EBX = information.
.section .text.entry, "ax"
.code32
.global start32
start_pvh:
    # PVH has no magic number in EAX; the one in the structure at EBX tells the program as well.
    mov eax, HVM_START_MAGIC
start32:
    cli
    cld
    mov esp, offset stack_top
    mov edi, eax
    mov esi, ebx

    # The first 4 GiB to themselves, in 2 MiB pages. `.bss` is zero.
    mov dword ptr [pml4], offset pdpt + PAGE_P_RW
    mov eax, offset page_directories + PAGE_P_RW
    xor ecx, ecx
2:  mov [pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, IDENTITY_GIB
    jb 2b
    mov eax, PAGE_P_RW_PS
    xor ecx, ecx
3:  mov [page_directories + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, IDENTITY_GIB * 512
    jb 3b

    # SDM Vol. 3A, 11.8.5 "Initializing IA-32e Mode". SSE on the way, since compiled code uses it.
    mov eax, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, IA32_EFER
    rdmsr
    or eax, EFER_LME
    wrmsr
    mov eax, CR0_PE | CR0_MP | CR0_NE | CR0_WP | CR0_PG
    mov cr0, eax
    lgdt [gdt_pointer]
    mov eax, CODE_SELECTOR
    push eax
    mov eax, offset start64
    push eax
    retf

.code64
start64:
    mov eax, DATA_SELECTOR
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    # The upper halves of registers are undefined after the switch.
    lea rsp, [rip + stack_top]
    mov edi, edi
    mov esi, esi
    xor ebp, ebp
    call start
    ud2

# void *memcpy(void *to, const void *from, size_t bytes)
.section .text
.global memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
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

.section .rodata
.balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 64-bit code
    .quad 0x00cf93000000ffff            # data
gdt_end:
gdt_pointer:
    .short gdt_end - gdt - 1
    .long gdt

.section .bss
.balign 4096
.global pml4
pml4:
    .skip 4096
.global pdpt
pdpt:
    .skip 4096
page_directories:
    .skip IDENTITY_GIB * 4096
    .skip STACK_BYTES
stack_top:
