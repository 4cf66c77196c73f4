// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A driver for the emulator's DMA test device (docs/dma-device.md): --dma-device on. The device's addresses are full
 * physical addresses, so it depends on who makes them whether it sees a page as its owner does.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#include "mktme_demo.h"

#define MDMA_VENDOR 0x1af4
#define MDMA_DEVICE 0x10f0

#define MDMA_ID 0x00
#define MDMA_ID_VALUE 0x414d444d
#define MDMA_COMMAND 0x08
#define MDMA_COMMAND_READ 1  /* memory to buffer */
#define MDMA_COMMAND_WRITE 2 /* buffer to memory */
#define MDMA_STATUS 0x0c
#define MDMA_STATUS_BUSY BIT(0)
#define MDMA_STATUS_DONE BIT(1)
#define MDMA_STATUS_ERROR BIT(2)
#define MDMA_SOURCE 0x10
#define MDMA_DESTINATION 0x18
#define MDMA_LENGTH 0x20
#define MDMA_BUFFER 0x1000

static DEFINE_MUTEX(lock);
static struct pci_dev *device;
static void __iomem *registers;
atomic64_t mktme_dma_transfers;

/*
 * One command, to its end. `keyid` are the bits that the page's owner has in its page tables, or should have. Inlined, so
 * that whoever waits for the transfer is the one who chose the address.
 */
static __always_inline int transfer(struct page *page, u64 keyid, void *buffer, bool to_memory)
{
	enum dma_data_direction direction = to_memory ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
	dma_addr_t address;
	u32 status;
	int error;

	mutex_lock(&lock);
	if (!device) {
		mutex_unlock(&lock);
		return -ENODEV;
	}
	address = dma_map_page(&device->dev, page, 0, PAGE_SIZE, direction);
	error = dma_mapping_error(&device->dev, address);
	if (error)
		goto unlock;
	if (to_memory)
		memcpy_toio(registers + MDMA_BUFFER, buffer, PAGE_SIZE);
	writeq(to_memory ? 0 : address | keyid, registers + MDMA_SOURCE);
	writeq(to_memory ? address | keyid : 0, registers + MDMA_DESTINATION);
	writel(PAGE_SIZE, registers + MDMA_LENGTH);
	writel(to_memory ? MDMA_COMMAND_WRITE : MDMA_COMMAND_READ, registers + MDMA_COMMAND);
	do {
		cpu_relax();
		status = readl(registers + MDMA_STATUS);
	} while (status & MDMA_STATUS_BUSY);
	dma_unmap_page(&device->dev, address, PAGE_SIZE, direction);
	if (!(status & MDMA_STATUS_DONE)) {
		pr_err("transfer at %#llx failed, status %#x\n", (u64)address | keyid, status);
		error = -EIO;
		goto unlock;
	}
	if (!to_memory)
		memcpy_fromio(buffer, registers + MDMA_BUFFER, PAGE_SIZE);
	atomic64_inc(&mktme_dma_transfers);
unlock:
	mutex_unlock(&lock);
	return error;
}

/* The address that the DMA API gives for the page, and the page's KeyID. */
int mktme_dma(struct page *page, void *buffer, bool to_memory)
{
	return transfer(page, mktme_keyid_mask(mktme_page_keyid(page)), buffer, to_memory);
}

/*
 * The mistake: the address that the DMA API gives, which knows nothing of KeyIDs. The device moves what KeyID 0's key makes
 * of the page, past the owner's lines in the cache.
 */
noinline int mktme_dma_wrong_keyid(struct page *page, void *buffer, bool to_memory)
{
	return transfer(page, 0, buffer, to_memory);
}

static int probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	int error = pcim_enable_device(pci);

	if (error)
		return error;
	error = pcim_iomap_regions(pci, BIT(0), KBUILD_MODNAME);
	if (error)
		return error;
	if (readl(pcim_iomap_table(pci)[0] + MDMA_ID) != MDMA_ID_VALUE)
		return -ENODEV;
	error = dma_set_mask_and_coherent(&pci->dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	pci_set_master(pci);
	mutex_lock(&lock);
	device = pci;
	registers = pcim_iomap_table(pci)[0];
	mutex_unlock(&lock);
	return 0;
}

static void remove(struct pci_dev *pci)
{
	mutex_lock(&lock);
	device = NULL;
	mutex_unlock(&lock);
	pci_clear_master(pci);
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(MDMA_VENDOR, MDMA_DEVICE) }, {} };
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver driver = {
	.name = KBUILD_MODNAME,
	.id_table = ids,
	.probe = probe,
	.remove = remove,
};

bool mktme_dma_present(void)
{
	return READ_ONCE(device);
}

int mktme_dma_init(void)
{
	return pci_register_driver(&driver);
}

void mktme_dma_exit(void)
{
	pci_unregister_driver(&driver);
}
